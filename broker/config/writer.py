"""Write a configuration as TOML: for `pybroker config show` and for `<path>/runtime/current_config.toml`.

Iggy's test harnesses learn from that file which ports an address with port 0 became, so tables and keys are Iggy's.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import tomli_w
from msgspec.structs import asdict, replace

from .schema import Config, Table, is_secret, kind_of, name_of

_AS_CONFIGURED: Final[Mapping[str, str]] = MappingProxyType({})


def to_toml(config: Config, *, addresses: Mapping[str, str] = _AS_CONFIGURED) -> str:
    """Return `config` as TOML that loads back as the same configuration, without its secrets.

    addresses: by listener ("tcp"), the host:port it is bound to, in place of the one configured.
    """
    bound = {name: replace(getattr(config, name), address=address) for name, address in addresses.items()}
    return tomli_w.dumps(as_table(replace(config, **bound)))


def as_table(table: Table) -> dict[str, object]:
    """Return `table` as TOML has it, nested, without its secrets."""
    return {
        name_of(name): as_table(value) if isinstance(value, Table) else kind_of(table, name).write(value)
        for name, value in asdict(table).items()
        if not is_secret(table, name)
    }
