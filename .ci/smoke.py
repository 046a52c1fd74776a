"""What must work on every Python before torch, NumPy and pandas are there: `recbole-lsti doctor` and `--help`."""

import compileall
import io
import sys
from pathlib import Path

import recbole_lsti
from recbole_lsti import cli, doctor

package = Path(recbole_lsti.__file__).parent
if "site-packages" not in package.parts:
    sys.exit(f"recbole_lsti ({package}) must be the installed wheel's")
if not compileall.compile_dir(package, quiet=1, force=True):
    sys.exit("every module must compile")
report = io.StringIO()
if doctor.report(report) != 1 or "torch          not installed" not in report.getvalue():
    sys.exit(f"doctor must say that torch is missing:\n{report.getvalue()}")
cli.build_parser().format_help()
print(
    f"Python {sys.version.split()[0]}: recbole_lsti {recbole_lsti.__version__} imports, doctor reports what is missing"
)
