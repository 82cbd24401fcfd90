/* Adapters as PEFT keeps them: adapter_config.json and adapter_model.safetensors.  Strict both
 * ways: a tensor or setting we would ignore is refused. */
#ifndef GR_TRAINER_PEFT_FILES_H
#define GR_TRAINER_PEFT_FILES_H

#include "data/hash.h"
#include "data/safetensors.h"
#include "trainer/model/lora.h"

/* adapter_config.json: sorted keys and lists, nothing that depends on time or place beyond
 * base_model, which is written as given. */
void gr_peft_write_config(struct gr_buffer *json, const struct gr_adapter *adapter,
                          const char *base_model);
/* adapter_model.safetensors, f32.  values (elements): host memory, the flat buffer. */
void gr_peft_write_weights(struct gr_buffer *bytes, const struct gr_adapter *adapter,
                           const float *values);

/* Reads directory/adapter_config.json; release with gr_lora_config_release.
 * Errors: ERR_NOT_FOUND, ERR_DATA (a kind of adapter or a setting graft does not compute). */
gr_status gr_peft_read_config(struct gr_lora_config *config, const char *directory);
/* The same from the file's bytes; place: what messages call it. */
gr_status gr_peft_parse_config(struct gr_lora_config *config, const struct gr_buffer *bytes,
                               const char *place);
/* Reads directory/adapter_model.safetensors into values (elements), widening f16 and bf16.
 * Errors: ERR_DATA naming a missing, extra, misshapen or non-finite tensor. */
gr_status gr_peft_read_weights(float *values, const struct gr_adapter *adapter,
                               const char *directory);
/* The same from an open file. */
gr_status gr_peft_copy_weights(float *values, const struct gr_adapter *adapter,
                               const struct gr_safetensors *file);
/* Config and weights: an adapter on this model, and its values (adapter->elements) in host memory;
 * the caller destroys the one and frees the other, also after a failure. */
gr_status gr_peft_read(struct gr_adapter **adapter, float **values,
                       const struct gr_model_config *model, const char *directory);

/* The hash of an adapter, its settings and values: that of a list as gr_hash_list_add makes it.
 * Whether the values come from f32, f16 or bf16, the files' names and the base's name change
 * nothing. */
void gr_peft_hash(char hex[GR_SHA256_HEX_BYTES], const struct gr_adapter *adapter,
                  const float *values);

#endif
