"""`python -m genrec`: the same as the command `genrec`."""

from genrec.cli.main import main

if __name__ == "__main__":
    main()
