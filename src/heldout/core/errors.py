"""What a user did that cannot work, told in one line."""


class UserError(Exception):
    """Bad input: argument, rule, value and next step in one line; the command exits with code 2.

    Our own bugs are assertions, never this.
    """

    def __init__(self, message: str):
        super().__init__(" ".join(str(message).split()))


class TrainingDiverged(UserError):
    """The loss became infinite or not a number; the last good checkpoint is kept."""


class Interrupted(Exception):
    """The user asked to stop; what there is has been saved."""
