"""Train and test a model with the flags of RecBole's run_recbole.py: `python run_recbole_lsti.py --dataset ml-100k`."""

import sys

from recbole_lsti.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
