"""The database: its tables, its transactions, and what becomes of it when it takes no writes."""
