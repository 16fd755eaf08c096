"""Write a configuration as TOML: for `pybroker config show` and for `<path>/runtime/current_config.toml`.

Iggy's test harnesses learn from that file which ports an address with port 0 became, so tables and keys are Iggy's.
"""

from collections.abc import Mapping
from dataclasses import Field, fields, replace
from types import MappingProxyType
from typing import Any, Final

import tomli_w

from .schema import Config, Table, is_table, name_of

_AS_CONFIGURED: Final[Mapping[str, str]] = MappingProxyType({})


def to_toml(config: Config, *, addresses: Mapping[str, str] = _AS_CONFIGURED) -> str:
    """Return `config` as TOML that loads back as the same configuration, without its secrets.

    addresses: by listener ("tcp"), the host:port it is bound to, in place of the one configured.
    """
    bound = {name: replace(getattr(config, name), address=address) for name, address in addresses.items()}
    return tomli_w.dumps(as_table(replace(config, **bound)))


def as_table(table: Table) -> dict[str, object]:
    """Return `table` as TOML has it, nested, without its secrets."""
    shown = [item for item in fields(table) if not item.metadata.get("secret")]
    return {name_of(item): _raw(item, getattr(table, item.name)) for item in shown}


def _raw(item: Field[Any], value: Any) -> object:
    return as_table(value) if is_table(item.default) else item.metadata["kind"].write(value)
