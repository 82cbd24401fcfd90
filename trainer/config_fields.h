/* The one table of configuration keys.  The struct, the YAML reader, --set, --help, `graft config`
 * and the identity of a run all come from it; adding a key is adding a row.
 *
 * A row: section, name, type, default, range, unit, IDENTITY or FREE, help.
 *   default   as it would stand in the file
 *   range     numbers: an interval, also of each value of a MAP; CHOICE: the words; else ""
 *   IDENTITY  part of what a run is: it cannot change when the run is resumed.  FREE keys leave
 *             the bits of the adapter alone (device.backend: but for a warning on resume)
 * Names and meanings are those of PEFT and TRL where these have them. */
#ifndef GR_TRAINER_CONFIG_FIELDS_H
#define GR_TRAINER_CONFIG_FIELDS_H

/* type, C members it stands for */
#define GR_CONFIG_MEMBERS_TEXT(name)         char *name; /* NULL: null */
#define GR_CONFIG_MEMBERS_CHOICE(name)       char *name;
#define GR_CONFIG_MEMBERS_INTEGER(name)      int64_t name;
#define GR_CONFIG_MEMBERS_AUTO_INTEGER(name) int64_t name; /* 0: auto */
#define GR_CONFIG_MEMBERS_BYTES(name)        int64_t name; /* 0: auto */
#define GR_CONFIG_MEMBERS_REAL(name)         double name;
#define GR_CONFIG_MEMBERS_FLAG(name)         bool name;
#define GR_CONFIG_MEMBERS_LIST(name)         struct gr_text_list name;
#define GR_CONFIG_MEMBERS_MAP(name)          struct gr_pattern_map name;
/* A list, or one text (then the list has that one item). */
#define GR_CONFIG_MEMBERS_NAMES(name)                                                              \
    struct gr_text_list name;                                                                      \
    bool name##_is_list;

/* clang-format off */
#define GR_CONFIG_TOP(F)                                                                           \
    F(, model, TEXT, "null", "", "", IDENTITY,                                                     \
      "Hugging Face model directory: config.json, *.safetensors, tokenizer.json")                  \
    F(, output, TEXT, "null", "", "", FREE,                                                        \
      "run directory: checkpoints, metrics and the finished adapter")

#define GR_CONFIG_DATA(F)                                                                          \
    F(data., train, LIST, "[]", "", "", FREE,                                                      \
      "JSONL or JSON files, or token stores, to train on; a run is tied to what they hold, not "   \
      "where they are")                                                                            \
    F(data., eval, LIST, "[]", "", "", FREE,                                                       \
      "the same to evaluate on")                                                                   \
    F(data., eval_split, REAL, "0.0", "[0, 1)", "", IDENTITY,                                      \
      "part of the training documents held out for evaluation, the same ones for every seed")       \
    F(data., format, CHOICE, "auto",                                                               \
      "auto | text | messages | prompt_completion | alpaca | tokens", "", IDENTITY,                \
      "what a record holds; auto: by the keys of the first one; tokens: token stores (HDF5) that " \
      "another program wrote")                                                                     \
    F(data., chat_format, TEXT, "auto", "", "", IDENTITY,                                          \
      "how messages become text; auto: by the model's chat template, where it is a known one; "    \
      "else a format's name, such as chatml")                                                      \
    F(data., max_length, INTEGER, "2048", "[2, 1048576]", "tokens", IDENTITY,                      \
      "length of a pack, and the most that a document may have")                                   \
    F(data., packing, FLAG, "true", "", "", IDENTITY,                                              \
      "put several documents into one pack, each isolated from the others")                        \
    F(data., too_long, CHOICE, "truncate", "truncate | drop | error", "", IDENTITY,                \
      "what happens to a document longer than a pack")                                             \
    F(data., loss_on, CHOICE, "assistant", "assistant | all | last_turn", "", IDENTITY,            \
      "which turns of a conversation are learned; last_turn: the assistant's last")                \
    F(data., cache_dir, TEXT, "auto", "", "", FREE,                                                \
      "where tokens are cached; auto: ${XDG_CACHE_HOME:-~/.cache}/graft")

#define GR_CONFIG_LORA(F)                                                                          \
    F(lora., r, INTEGER, "16", "[1, 65536]", "", IDENTITY,                                         \
      "rank of the adapters")                                                                      \
    F(lora., lora_alpha, INTEGER, "32", "[1, 1048576]", "", IDENTITY,                              \
      "the adapter's output is scaled by lora_alpha / r")                                          \
    F(lora., lora_dropout, REAL, "0.0", "[0, 1)", "", IDENTITY,                                    \
      "dropout on the adapter's input")                                                            \
    F(lora., target_modules, NAMES, "all-linear", "", "", IDENTITY,                                \
      "list of module names, a regular expression, or all-linear (all but the output head)")       \
    F(lora., use_rslora, FLAG, "false", "", "", IDENTITY,                                          \
      "scale by lora_alpha / sqrt(r) instead (rsLoRA)")                                            \
    F(lora., rank_pattern, MAP, "{}", "[1, 65536]", "", IDENTITY,                                  \
      "r of the modules whose name matches; the first match counts")                               \
    F(lora., alpha_pattern, MAP, "{}", "[1, 1048576]", "", IDENTITY,                               \
      "lora_alpha of the modules whose name matches; the first match counts")                      \
    F(lora., loraplus_lr_ratio, REAL, "1.0", "(0, 1000000]", "", IDENTITY,                         \
      "learning rate of B over that of A (LoRA+)")                                                 \
    F(lora., init_lora_weights, CHOICE, "true", "true | false | gaussian", "", IDENTITY,           \
      "start of A and B: true, as PEFT does it (B = 0); gaussian; false: both random")

#define GR_CONFIG_TRAIN(F)                                                                         \
    F(train., micro_batches, INTEGER, "8", "[1, 1048576]", "", IDENTITY,                           \
      "micro-batches of a step, over all ranks together")                                          \
    F(train., micro_batch_size, INTEGER, "1", "[1, 65536]", "packs", IDENTITY,                     \
      "packs of a micro-batch, which are computed at once")                                        \
    F(train., num_train_epochs, INTEGER, "1", "[1, 1000000]", "epochs", IDENTITY,                  \
      "times the training documents are gone through")                                             \
    F(train., max_steps, INTEGER, "-1", "[-1, 1000000000]", "steps", IDENTITY,                     \
      "length of the run; > 0 replaces num_train_epochs")                                          \
    F(train., learning_rate, REAL, "2.0e-4", "[0, 1000]", "", IDENTITY,                            \
      "peak learning rate")                                                                        \
    F(train., lr_scheduler_type, CHOICE, "cosine",                                                 \
      "linear | cosine | constant | constant_with_warmup", "", IDENTITY,                           \
      "learning rate over the run, as in transformers")                                            \
    F(train., warmup_ratio, REAL, "0.03", "[0, 1]", "", IDENTITY,                                  \
      "part of the steps over which the learning rate rises from 0")                               \
    F(train., weight_decay, REAL, "0.0", "[0, 1000]", "", IDENTITY,                                \
      "decoupled weight decay of AdamW")                                                           \
    F(train., max_grad_norm, REAL, "1.0", "[0, inf)", "", IDENTITY,                                \
      "gradients are scaled down to this norm; 0: never")                                          \
    F(train., adam_beta1, REAL, "0.9", "[0, 1)", "", IDENTITY,                                     \
      "decay of AdamW's first moment")                                                             \
    F(train., adam_beta2, REAL, "0.999", "[0, 1)", "", IDENTITY,                                   \
      "decay of AdamW's second moment")                                                            \
    F(train., adam_epsilon, REAL, "1.0e-8", "(0, 1]", "", IDENTITY,                                \
      "added to the root of AdamW's second moment")                                                \
    F(train., seed, INTEGER, "42", "[0, 4294967295]", "", IDENTITY,                                \
      "random seed: of the order of documents, the start of A and the dropout masks")              \
    F(train., logging_steps, INTEGER, "1", "[1, 1000000000]", "steps", FREE,                       \
      "metrics are reported every so many steps")                                                  \
    F(train., eval_steps, INTEGER, "100", "[1, 1000000000]", "steps", IDENTITY,                    \
      "evaluated every so many steps and at the end")                                              \
    F(train., early_stopping_patience, INTEGER, "0", "[0, 1000000]", "evaluations", IDENTITY,      \
      "stop after so many evaluations without a better eval_loss; 0: never")                       \
    F(train., report_samples, INTEGER, "3", "[0, 100]", "prompts", FREE,                           \
      "prompts answered with and without the adapter for report.html at the end; after 10 s no "   \
      "more words are generated")                                                                  \
    F(train., save_steps, INTEGER, "100", "[0, 1000000000]", "steps", FREE,                        \
      "a checkpoint every so many steps; 0: by time alone")                                        \
    F(train., save_seconds, INTEGER, "600", "[0, 1000000000]", "seconds", FREE,                    \
      "a checkpoint after so many seconds without one; 0: by steps alone")                         \
    F(train., save_total_limit, INTEGER, "3", "[3, 1000000]", "checkpoints", FREE,                 \
      "checkpoints that are kept: the newest; the best and pinned ones stay besides")              \
    F(train., resume, CHOICE, "auto", "auto | never", "", FREE,                                    \
      "auto: go on from the newest good checkpoint in output; never: begin anew, older ones go")   \
    F(train., init_from, TEXT, "null", "", "", IDENTITY,                                           \
      "checkpoint whose adapter a new run starts from")

#define GR_CONFIG_DEVICE(F)                                                                        \
    F(device., backend, CHOICE, "auto", "auto | cpu | cuda", "", FREE,                             \
      "where the run computes; auto: on a GPU where there is one")                                     \
    F(device., dtype, CHOICE, "auto", "auto | f32 | bf16", "", IDENTITY,                           \
      "how weights and activations are stored; auto: bf16 on CUDA, on CPUs with AMX and where f32 " \
      "weights do not fit, else f32")                                                              \
    F(device., deterministic, FLAG, "false", "", "", IDENTITY,                                     \
      "for CUDA: nothing is chosen by time, and attention is not cuDNN's; the CPU always gives "    \
      "the same bits")                                                                             \
    F(device., memory, BYTES, "auto", "", "bytes", FREE,                                           \
      "memory the run may use per device; auto: what is free")                                     \
    F(device., recompute, CHOICE, "auto", "auto | none | all | offload", "", FREE,                 \
      "activations computed again in the backward pass; auto: as few as fit; offload: all, and on "  \
      "a GPU what they are computed from waits in the host's memory")                              \
    F(device., threads, AUTO_INTEGER, "auto", "[1, 4096]", "threads", FREE,                        \
      "CPU threads per rank; auto: usable cores / ranks of the host")

#define GR_CONFIG_DIST(F)                                                                          \
    F(dist., backend, CHOICE, "auto", "auto | mpi | nccl", "", FREE,                               \
      "what carries gradients between ranks; auto: NCCL where each rank has a GPU of its own")     \
    F(dist., reduce, CHOICE, "tree", "tree | all_reduce", "", IDENTITY,                            \
      "how gradients are summed between ranks; tree: with the same bits at any number of them; "    \
      "all_reduce: by NCCL's own sum, which may be faster and whose bits depend on the ranks")      \
    F(dist., timeout_seconds, REAL, "600.0", "(0, 1000000000]", "seconds", FREE,                   \
      "a peer from which nothing came for so long in one exchange is lost")
/* clang-format on */

#define GR_CONFIG_FIELDS(F)                                                                        \
    GR_CONFIG_TOP(F)                                                                               \
    GR_CONFIG_DATA(F)                                                                              \
    GR_CONFIG_LORA(F)                                                                              \
    GR_CONFIG_TRAIN(F)                                                                             \
    GR_CONFIG_DEVICE(F)                                                                            \
    GR_CONFIG_DIST(F)

#endif
