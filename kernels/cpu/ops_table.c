/* Placeholder until the first op lands. */
typedef int gr_cpu_ops_table_is_empty;
