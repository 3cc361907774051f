"""What a user did that cannot work, told in one line."""


class UserError(Exception):
    """Bad input: argument, rule, value and next step in one line; the command exits with code 2.

    Our own bugs are assertions, never this.
    """

    def __init__(self, message: str):
        super().__init__(" ".join(str(message).split()))
