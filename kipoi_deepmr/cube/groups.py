"""Names of the groups of a store, and of the attributes by which it is known."""

EFFECTS_GROUP = "effects"
LOCAL_GROUP = "local"
GLOBAL_GROUP = "global"
REVERSE_GROUP = "reverse"
DRAWN_GROUP = "from_draws"
CONTROLS_GROUP = "controls"
DIRECTION_GROUPS = (LOCAL_GROUP, GLOBAL_GROUP, REVERSE_GROUP)
ESTIMATE_GROUPS = (*DIRECTION_GROUPS, *(f"{CONTROLS_GROUP}/{name}" for name in DIRECTION_GROUPS))
DIGEST = "config_sha256"
RUN_ID = "run_id"
FORMAT = "format"
# Goes up when names or meaning of what a store holds change.
FORMAT_NUMBER = 2
