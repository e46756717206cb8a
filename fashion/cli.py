"""The `fashion` command."""

import argparse
import json
from pathlib import Path

from fashion.errors import run_command


def main() -> None:
    """Run the `fashion` command."""
    parser = argparse.ArgumentParser(prog="fashion", description="Work with the models of this pipeline.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    results = commands.add_parser(
        "results", help="print the table of results", description="Print the table of results."
    )
    results.add_argument("--json", action="store_true", help="print JSON, for programs")
    results.add_argument("--root", type=Path, default=Path(), help="folder of the project (default: this one)")
    results.set_defaults(command=show_results)
    args = parser.parse_args()
    args.command(args)


def show_results(args: argparse.Namespace) -> None:
    """Print each model's results, as a table or as JSON."""
    from fashion.evaluation import results

    found = results.read(args.root)
    print(json.dumps(results.as_json(found), indent=2) if args.json else results.markdown(found))


def entry_point() -> None:
    """Run the `fashion` command and exit."""
    run_command(main)


if __name__ == "__main__":
    entry_point()
