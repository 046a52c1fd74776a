"""Train and test a model, as RecBole's run_recbole.py does: `python run_recbole_lsti.py --model LSTI --dataset ml-100k`."""

import sys

from recbole_lsti.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
