"""The `pybroker` command: which sub-commands there are. Each is imported when it is called."""

import gc
import sys
from importlib import import_module

from . import __version__

# name: (module, function that takes the arguments and returns the exit status, what it does)
COMMANDS = {
    "serve": (".broker.cli", "serve", "run the broker"),
    "config": (".broker.cli", "config", "show or check the configuration"),
    "verify": (".broker.datadir.cli", "verify", "verify a data directory, and repair what can be"),
    "backup": (".broker.datadir.cli", "backup", "copy a data directory, also of a running broker"),
    "restore": (".broker.datadir.cli", "restore", "make a data directory of a backup"),
    "bench": (".benchmarks.harness.cli", "bench", "load a broker, and say how fast it was"),
}


def main() -> int:
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-V", "--version"):
        print(f"pybroker {__version__}")
        return 0
    if name in COMMANDS:
        module, function, _ = COMMANDS[name]
        gc.disable()  # what is imported stays: to look for garbage in it takes a tenth of the time
        run = getattr(import_module(module, __package__), function)
        gc.freeze()
        gc.enable()
        return run(arguments)
    print("usage: pybroker COMMAND [--help]\n")
    for command, (_, _, what) in COMMANDS.items():
        print(f"  {command:8} {what}")
    if name in ("-h", "--help"):
        return 0
    print(f"\npybroker: no command {name!r}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
