"""What the tables are: codes, columns, sizes, and how they are allocated. Data only; both kinds of threads read it."""
