/* The trial of every op on two devices (kernels/trial_ops.h): that one instruction set of the CPU
 * computes what another does, and CUDA what the CPU does; that a wrong op is
 * named, and it alone.  What the doctor makes of it: tests/cuda/test_cuda_doctor.sh. */
#include "kernels/backend.h"
#include "kernels/trial_ops.h"
#include "tests/rig.h"

static struct gr_op_trial trials[GR_PROFILED_OP_COUNT];

/* The device under trial with a table of its own, in which ops can be wrong. */
struct subject {
    struct gr_device *dev, *cpu;
    struct gr_ops ops;
    const struct gr_ops *own;
};

static const struct gr_ops *right; /* of the subject: what a wrong op calls */

static void open_subject(struct subject *s, const char *isa)
{
    ASSERT_OK(gr_device_create(&s->cpu, "cpu", 2, NULL));
    ASSERT_OK(
        gr_device_create(&s->dev, rig_is_cuda() ? "cuda" : "cpu", 2, rig_is_cuda() ? NULL : isa));
    s->own = right = s->dev->ops;
    s->ops = *s->own;
    s->dev->ops = &s->ops;
}

static void close_subject(struct subject *s)
{
    s->dev->ops = s->own;
    gr_device_destroy(s->dev);
    gr_device_destroy(s->cpu);
}

static void try_all(struct subject *s, bool is_quick)
{
    int compared = 0;

    ASSERT_OK(gr_trial_ops(trials, &compared, s->dev, s->cpu, is_quick));
    ASSERT_INT(compared, GR_PROFILED_OP_COUNT);
}

/* Ops `first`, first + step and so on are wrong, and no other; first -1: none. */
static void assert_wrong_each(int first, int step)
{
    for (int i = 0; i < GR_PROFILED_OP_COUNT; i++)
        ASSERT_MSG(trials[i].is_same == (first < 0 || i % step != first),
                   "%s: %s: element %" PRId64 " is %.9g, expected %.9g (off by %g, allowed %g)",
                   trials[i].op, trials[i].where, trials[i].element, trials[i].found,
                   trials[i].expected, trials[i].apart, trials[i].bound);
}

static void assert_wrong(int wrong)
{
    assert_wrong_each(wrong, GR_PROFILED_OP_COUNT);
}

TEST(trial_ops_devices_compute_the_same)
{
    const char *isa;
    struct subject s;

    for (int i = 0; (isa = rig_isa(i)) != NULL; i++) {
        open_subject(&s, isa);
        try_all(&s, true);
        assert_wrong(-1);
        if (!rig_is_cuda() && rig_isa(i + 1) == NULL) { /* the large size takes seconds */
            try_all(&s, false);
            assert_wrong(-1);
        }
        close_subject(&s);
    }
}

/* ---- ops that do nothing ---- */

#define RETURN_void
#define RETURN_bool      false
#define RETURN_int64_t   0
#define RETURN_gr_status GR_OK
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wunused-function"
#define X(type, name, parameters)                                                                  \
    static type skip_##name parameters                                                             \
    {                                                                                              \
        return RETURN_##type;                                                                      \
    }
GR_BACKEND_LIST(X)
#undef X
#pragma GCC diagnostic pop

/* Every third at a time: the others are not blamed for them. */
TEST(trial_ops_what_is_not_computed_is_named)
{
    enum { STEP = 3 };
    struct subject s;

    if (rig_is_cuda())
        SKIP("comparing is the CPU's in any case, and emulation takes long");
    open_subject(&s, NULL);
    for (int first = 0; first < STEP; first++) {
        s.ops = *s.own;
#define X(name)                                                                                    \
    if (GR_PROFILE_##name % STEP == first)                                                         \
        s.ops.name = skip_##name;
        GR_PROFILED_OPS(X)
#undef X
        try_all(&s, true);
        assert_wrong_each(first, STEP);
    }
#define X(name) ASSERT(strcmp(trials[GR_PROFILE_##name].op, #name) == 0);
    GR_PROFILED_OPS(X)
#undef X
    close_subject(&s);
}

/* ---- ops that are a little wrong ---- */

static double factor;

/* The first element of a row, if it is f32. */
static void scale_element(struct gr_device *dev, gr_tensor t, int64_t row)
{
    const int64_t at = row * t.stride * gr_dtype_bytes(t.dtype);
    const gr_tensor one = gr_tensor_2d((char *)t.data + at, t.dtype, 1, 1);
    float value = 0;

    if (t.dtype != GR_F32)
        return;
    gr_device_download(dev, &value, one);
    ASSERT_OK(gr_device_sync(dev));
    value = (float)((double)value * factor);
    gr_device_upload(dev, one, &value);
}

static void bend_swiglu_forward(struct gr_device *dev, gr_tensor h, gr_tensor gate, gr_tensor up)
{
    right->swiglu_forward(dev, h, gate, up);
    for (int64_t i = 0; i < h.dim[0]; i++)
        scale_element(dev, h, i);
}

/* The last of its results alone. */
static void bend_swiglu_backward(struct gr_device *dev, gr_tensor dgate, gr_tensor dup, gr_tensor h,
                                 gr_tensor dh, gr_tensor gate, gr_tensor up)
{
    right->swiglu_backward(dev, dgate, dup, h, dh, gate, up);
    for (int64_t i = 0; i < h.dim[0]; i++)
        scale_element(dev, h, i);
}

static void bend_add(struct gr_device *dev, gr_tensor y, gr_tensor a, gr_tensor b)
{
    right->add(dev, y, a, b);
    scale_element(dev, y, 0);
}

/* Roundings are allowed where there are some, and nowhere else. */
TEST(trial_ops_bounds_are_those_of_the_tests)
{
    struct subject s;

    open_subject(&s, NULL);
    s.ops.swiglu_forward = bend_swiglu_forward;
    factor = 1 + 1e-7;
    try_all(&s, true);
    assert_wrong(-1);
    factor = 1 + 1e-4;
    try_all(&s, true);
    assert_wrong(GR_PROFILE_swiglu_forward);
    ASSERT(strcmp(trials[GR_PROFILE_swiglu_forward].where, "f32 h") == 0);
    s.ops.swiglu_forward = s.own->swiglu_forward;
    s.ops.swiglu_backward = bend_swiglu_backward;
    try_all(&s, true);
    assert_wrong(GR_PROFILE_swiglu_backward);
    ASSERT(strcmp(trials[GR_PROFILE_swiglu_backward].where, "f32 h again") == 0);
    s.ops.swiglu_backward = s.own->swiglu_backward;
    s.ops.add = bend_add;
    factor = 1 + 0x1p-23;
    try_all(&s, true);
    assert_wrong(GR_PROFILE_add);
    ASSERT_INT(trials[GR_PROFILE_add].element, 0);
    close_subject(&s);
}

/* ---- a device that fails ---- */

static void fail_rope(struct gr_device *dev, gr_tensor x, gr_tensor cos, gr_tensor sin,
                      gr_tensor positions, int direction)
{
    (void)x, (void)cos, (void)sin, (void)positions, (void)direction;
    gr_device_fail(dev, GR_ERR_DEVICE, "rope", "the launch failed");
}

TEST(trial_ops_failing_op_is_the_next_one)
{
    struct subject s;
    int compared = 0;

    open_subject(&s, NULL);
    s.ops.rope = fail_rope;
    ASSERT_INT(gr_trial_ops(trials, &compared, s.dev, s.cpu, true), GR_ERR_DEVICE);
    ASSERT_INT(compared, GR_PROFILE_rope);
    ASSERT(strcmp(trials[compared].op, "rope") == 0 && trials[compared - 1].is_same);
    gr_error_clear();
    close_subject(&s);
}
