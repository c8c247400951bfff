"""The version of loreg: what ``loreg --version``, a User-Agent and the records of merges and bakes name."""

VERSION = "0.1.0"
