"""What goes wrong with a configuration."""


class ConfigError(Exception):
    """A configuration that the broker must not start with. Its text is one line for the operator.

    where: the file or the environment variable at fault.
    problem: the key, the value given unless it is a secret, and what is expected.
    """

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(f"{where}: {problem}")
        self.where = where
        self.problem = problem
