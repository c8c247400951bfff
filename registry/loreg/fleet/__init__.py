"""One probe over many versions: in processes of this machine, or as tasks on Ray; the catalog says what is done."""
