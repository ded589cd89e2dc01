"""Values that panels show as words, with their colors."""

UP = {1: ("up", "green"), 0: ("down", "red")}
YES_IS_GOOD = {1: ("yes", "green"), 0: ("no", "red")}
YES_IS_BAD = {0: ("no", "green"), 1: ("yes", "red")}
RULE = {0: ("inactive", "green"), 1: ("pending", "yellow"), 2: ("firing", "red")}
RECOVERY = {
    0: ("none", "green"),
    1: ("reset GPU", "red"),
    2: ("reboot node", "red"),
    3: ("drain P2P", "red"),
    4: ("drain and reset", "red"),
    5: ("recover IMEX domain", "red"),
    6: ("reset bus", "red"),
    7: ("reboot system", "red"),
}
