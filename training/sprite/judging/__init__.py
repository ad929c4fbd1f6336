"""How good it is: a judge that looks, trials, the table, the sheet."""
