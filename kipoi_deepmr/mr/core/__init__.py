"""What the estimators share: checked inputs, designs, regressions, losses, cross-fitting."""
