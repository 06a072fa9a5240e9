"""``python -m leasehold.cli``, for where the command is not on the path."""

from leasehold.cli import main

main()
