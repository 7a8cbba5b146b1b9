"""What targets start in processes of their own, and names of compiled code in such a process for profilers."""
