"""The gate of dispatch: may this user do what the command needs?"""

from ..protocol.needs import Need

ROOT_ID = 0


def allows(user_id: int, need: Need) -> bool:
    """Say whether a signed-in user has what a command needs. Root has everything."""
    return user_id == ROOT_ID or need in (Need.NOTHING, Need.LOGIN)
