/* What a run reads beside the model's weights: tokenizer and documents. */
#ifndef GR_TRAINER_INPUTS_H
#define GR_TRAINER_INPUTS_H

#include "data/documents.h"
#include "data/tokenizer/tokenizer.h"
#include "trainer/config.h"
#include "trainer/model/arch.h"

struct gr_inputs {
    struct gr_tokenizer *tokenizer;
    struct gr_documents train, eval; /* with data.eval_split, eval is a part of the training data */
    struct gr_sources train_sources, eval_sources; /* the files; none for eval with a split */
    char tokenizer_hash[65];                       /* every file the tokenizer is read from */
    char train_hash[65];                           /* all training files, in order */
    char eval_hash[65];
};

/* Reads the tokenizer of config->model, then the files of data.train and data.eval (either may be
 * empty), which are texts, by way of the cache, or token stores.  Errors: those of the readers; a
 * token the model does not have is ERR_DATA. */
gr_status gr_inputs_load(struct gr_inputs *inputs, const struct gr_config *config,
                         const struct gr_model_config *model, int threads);
/* One store that gr_inputs_prepare saw to. */
struct gr_prepared {
    const char *list; /* "train" or "eval" */
    char *path;
    bool was_there;            /* made before */
    struct gr_sources sources; /* the text files it holds */
};
/* Tokenizes the text files of data.train and data.eval into token stores and goes no further, so
 * that memory does not grow with them: into the cache, from where training takes them, or, with a
 * folder, into its train.h5 and eval.h5.  done: called for each store.  Errors: those of the
 * readers and of the place the stores go to; ERR_USAGE: a list for a folder holds a store. */
gr_status gr_inputs_prepare(const struct gr_config *config, const struct gr_model_config *model,
                            int threads, const char *folder,
                            void (*done)(const struct gr_prepared *store));
void gr_inputs_release(struct gr_inputs *inputs);

/* The model's embedding must have a row for every token; directory: the model's, for the message.
 */
gr_status gr_check_vocabulary(const uint32_t *ids, int64_t count,
                              const struct gr_model_config *model, const char *directory);

/* data.cache_dir, "auto" resolved; caller frees.  Errors: ERR_USAGE where it would be a folder that
 * others can write to; then *folder is NULL. */
gr_status gr_cache_dir(char **folder, const struct gr_config *config);

#endif
