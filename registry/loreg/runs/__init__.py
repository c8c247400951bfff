"""What training runs leave behind: the adapters in a tree of folders, and what is written of them beside.

Files of trainers are read with care: they are hints for metadata and never a reason to fail. No pickle is loaded; of
``training_args.bin`` the plain values are read.
"""
