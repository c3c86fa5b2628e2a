"""`python -m medgan` is the command `medgan`."""

from medgan.cli import main

main()
