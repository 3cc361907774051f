"""Rules of parameters, refused in one line: argument, rule, value."""

from heldout.core.errors import UserError


class CheckedParameters:
    """Of a dataclass whose fields are parameters that users set."""

    def require(self, name: str, holds: bool, rule: str) -> None:
        """Raise UserError unless the parameter ``name`` keeps its rule, such as ``above 0``."""
        if not holds:
            value = getattr(self, name)
            raise UserError(f"{type(self).__name__}({name}=...) must be {rule}, got {value!r}.")
