"""`python -m stmask_deploy.training` and `torchrun -m stmask_deploy.training`: the command `stmask-train`."""
from .cli import main

main(prog_name="stmask-train")
