"""The backend and the store of a loreg server, asked over HTTP."""
