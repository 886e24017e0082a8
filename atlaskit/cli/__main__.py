"""`python -m atlaskit.cli`, and `torchrun --nproc_per_node 2 -m atlaskit.cli` for several processes."""

from . import main

main()
