"""`daybook import`: loads data of other systems through the command API."""

import typer

from cli.import_csv import import_berka, import_csv
from cli.import_statements import import_camt053, import_mt940, import_ofx

app = typer.Typer(help="Load data of other systems through the command API.", no_args_is_help=True)
app.command("csv")(import_csv)
app.command("berka")(import_berka)
app.command("ofx")(import_ofx)
app.command("mt940")(import_mt940)
app.command("camt053")(import_camt053)
