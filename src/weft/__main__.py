"""`python -m weft`: the program, where its script is not on the path."""

from weft.cli import main

if __name__ == "__main__":
    main()
