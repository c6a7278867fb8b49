"""Where a data set comes from: copies, archives, published tables and lists, and what tells a whole copy from another one."""
