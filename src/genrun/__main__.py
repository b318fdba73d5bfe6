"""`python -m genrun`: the command line."""

from genrun.runner.cli import main

if __name__ == "__main__":
    main(prog_name="genrun")
