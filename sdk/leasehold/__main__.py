"""``python -m leasehold``, for where the command is not on the path."""

from leasehold.cli import main

main()
