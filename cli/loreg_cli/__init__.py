"""The command line of loreg: parse, call one library function, print."""
