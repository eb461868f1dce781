"""From effects in the store to local and global estimates and their controls."""
