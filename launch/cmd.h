/* The commands of `graft`, one file each.  A new command: its cmd_x.c, a line here, a line in
 * main.c. */
#ifndef GR_LAUNCH_CMD_H
#define GR_LAUNCH_CMD_H

#include "launch/args.h"

extern const struct gr_command gr_cmd_checkpoints;
extern const struct gr_command gr_cmd_config;
extern const struct gr_command gr_cmd_data;
extern const struct gr_command gr_cmd_doctor;
extern const struct gr_command gr_cmd_estimate;
extern const struct gr_command gr_cmd_eval;
extern const struct gr_command gr_cmd_generate;
extern const struct gr_command gr_cmd_init;
extern const struct gr_command gr_cmd_merge;
extern const struct gr_command gr_cmd_report;
extern const struct gr_command gr_cmd_tokenize;
extern const struct gr_command gr_cmd_train;
extern const struct gr_command gr_cmd_version;

#endif
