/* What is supervised, made visible. */
#include "data/show.h"
#include "tests/data_folder.h"
#include "tests/test.h"

TEST(show_first_pack_names_documents_and_marks_text)
{
    struct data_folder f;
    struct gr_loader *loader = NULL;
    struct gr_batch batch;
    struct gr_buffer text = {0};
    struct gr_loader_options options = {.max_length = 16,
                                        .micro_batch_size = 2,
                                        .micro_batches = 1,
                                        .num_train_epochs = 1,
                                        .packing = true};

    data_folder_begin(&f);
    ASSERT_OK(data_folder_read(&f, "{\"prompt\": \"1+1=\", \"completion\": \"\xe2\x82\xac\"}\n"
                                   "{\"prompt\": \"\\u001b\", \"completion\": \"\\u009b\"}\n"
                                   "{\"prompt\": \"next pack\", \"completion\": \"x\"}\n"));
    ASSERT_OK(gr_loader_create(&loader, &f.documents, &options));
    ASSERT_OK(gr_batch_init(&batch, loader));
    gr_loader_fill(loader, &batch, 1, 0);
    ASSERT_INT(batch.doc_count, 3);
    ASSERT_OK(gr_show_first_pack(&text, f.tokenizer, &batch, 2, GR_SHOW_BRACKETS));
    ASSERT_TEXT(text.data, "-- document 1: 9 tokens, 4 supervised\n"
                           "<s>1+1=[[\xe2\x82\xac</s>]]\n"
                           "-- document 2: 5 tokens, 3 supervised\n"
                           "<s>\\x1b[[\\x9b</s>]]\n");
    gr_buffer_clear(&text);
    ASSERT_OK(gr_show_document(&text, f.tokenizer, &f.documents, 0, GR_SHOW_COLOURS));
    ASSERT_TEXT(text.data, "\x1b[2m<s>1+1=\x1b[0m\x1b[32m\xe2\x82\xac</s>\x1b[0m");
    /* a label in the middle of a character moves to the whole of it */
    f.documents.labels[5] = f.documents.labels[6] = 0;
    gr_buffer_clear(&text);
    ASSERT_OK(gr_show_document(&text, f.tokenizer, &f.documents, 0, GR_SHOW_BRACKETS));
    ASSERT_TEXT(text.data, "<s>1+1=[[\xe2\x82\xac</s>]]");
    gr_buffer_release(&text);
    gr_batch_release(&batch);
    gr_loader_destroy(loader);
    data_folder_end(&f);
}
