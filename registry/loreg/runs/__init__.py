"""What training runs leave behind: the adapters in a tree of folders, and what is written of them beside.

Files of trainers are read with care: they are hints for metadata and never a reason to fail. No pickle is opened, so of
a run whose arguments are in ``training_args.bin`` alone these stay unknown.
"""
