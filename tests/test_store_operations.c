/* The file store with each of its file operations failing in turn: an object is whole or not there,
 * OK means that it is there, and the same call without the fault succeeds.  See test_store_file.c
 * for faults of the kernel's making. */
#include "data/store/store.h"

#include "kernels/base/alloc.h"
#include "kernels/base/failpoint.h"
#include "tests/files.h"
#include "tests/test.h"

#include <unistd.h>

typedef gr_status (*put_function)(struct gr_store *, const char *, const void *, int64_t);

/* From now on the k-th file operation of the store fails; 0: none. */
static void set_fault(int k)
{
    char *rule = k == 0 ? NULL : gr_format("store.op@%d:0:fail", k);

    ASSERT_OK(gr_failpoints_init(rule, 0));
    gr_free(rule);
}

/* The fault was met: then it is used up.  Else the operation asked for here is the next, the k-th.
 */
static bool was_met(void)
{
    return !gr_failpoint_fails(GR_FAILPOINT_STORE_OP);
}

/* What a call under a fault may return; the message is taken away. */
static bool was_refused(gr_status status)
{
    ASSERT_MSG(status == GR_OK || (status == GR_ERR_RETRY && gr_error_is_set()), "%s (%s)",
               gr_status_name(status), gr_error_message());
    gr_error_clear();
    return status != GR_OK;
}

/* The object holds `text`; `may_be_absent`: or it is not there. */
static void assert_whole(struct gr_store *store, const char *key, const char *text,
                         bool may_be_absent)
{
    struct gr_buffer bytes = {0};
    gr_status status = store->ops->get(store, &bytes, key, 0, -1);

    if (status == GR_ERR_NOT_FOUND && may_be_absent) {
        gr_error_clear();
    } else {
        ASSERT_OK(status);
        ASSERT_TEXT(bytes.data, text);
    }
    gr_buffer_release(&bytes);
}

static void assert_put_survives(struct gr_store *store, put_function put)
{
    int refusals = 0;
    bool is_met = true;

    for (int k = 1; is_met; k++) {
        char *key = gr_format("folder-%d/object", k);
        bool is_refused;

        set_fault(k);
        is_refused = was_refused(put(store, key, "text", 4));
        is_met = was_met();
        set_fault(0);
        assert_whole(store, key, "text", is_refused);
        ASSERT_OK(put(store, key, "text", 4));
        assert_whole(store, key, "text", false);
        refusals += is_refused;
        gr_free(key);
    }
    ASSERT_MSG(refusals >= 8, "only %d operations were refused", refusals);
}

TEST(store_put_with_any_operation_failing_is_whole_or_absent)
{
    struct gr_store *store = NULL;

    gr_test_enter_folder();
    ASSERT_OK(gr_store_open(&store, "."));
    assert_put_survives(store, store->ops->put);
    gr_store_close(store);
}

TEST(store_put_if_absent_with_any_operation_failing_is_whole_or_absent)
{
    struct gr_store *store = NULL;

    gr_test_enter_folder();
    ASSERT_OK(gr_store_open(&store, "."));
    assert_put_survives(store, store->ops->put_if_absent);
    gr_store_close(store);
}

TEST(store_put_with_any_operation_failing_keeps_the_old_object_or_has_the_new)
{
    struct gr_store *store = NULL;
    bool is_met = true;

    gr_test_enter_folder();
    ASSERT_OK(gr_store_open(&store, "."));
    for (int k = 1; is_met; k++) {
        struct gr_buffer bytes = {0};
        gr_status status;

        set_fault(0);
        ASSERT_OK(store->ops->put(store, "x", "old", 3));
        set_fault(k);
        status = store->ops->put(store, "x", "new one", 7);
        is_met = was_met();
        set_fault(0);
        was_refused(status);
        ASSERT_OK(store->ops->get(store, &bytes, "x", 0, -1));
        ASSERT(strcmp(bytes.data, "new one") == 0 ||
               (status != GR_OK && strcmp(bytes.data, "old") == 0));
        gr_buffer_release(&bytes);
    }
    gr_store_close(store);
}

/* A list or a read that fails says so: never a shorter list, never fewer bytes. */
TEST(store_list_and_get_with_any_operation_failing_are_complete_or_refused)
{
    struct gr_store *store = NULL;
    struct gr_buffer bytes = {0};
    struct gr_store_list list;
    bool is_met = true;

    gr_test_enter_folder();
    ASSERT_OK(gr_store_open(&store, "."));
    ASSERT_OK(store->ops->put(store, "a/1", "text", 4));
    ASSERT(symlink("a/1", "b") == 0);
    for (int k = 1; is_met; k++) {
        set_fault(k);
        if (!was_refused(store->ops->list(store, &list, ""))) {
            ASSERT_INT(list.count, 2);
            gr_store_list_release(&list);
        }
        is_met = was_met();
    }
    is_met = true;
    for (int k = 1; is_met; k++) {
        set_fault(k);
        if (!was_refused(store->ops->get(store, &bytes, "a/1", 0, -1)))
            ASSERT_TEXT(bytes.data, "text");
        is_met = was_met();
    }
    gr_buffer_release(&bytes);
    gr_store_close(store);
}
