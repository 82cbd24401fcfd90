/* What the plug-in states of cuDNN is what NVIDIA's header says. */
#include "kernels/cuda/cudnn_api.h"

#include <cudnn.h>
#include <type_traits>

namespace
{

#define X(name, value) static_assert((int)GR_CUDNN_##name == (int)CUDNN_##name, #name);
GR_CUDNN_CONSTANTS(X)
#undef X

/* A type as it is passed to a function: enums as int, handles and streams as pointers. */
template <class T> struct passed {
    typedef std::conditional_t<std::is_enum_v<T>, int, T> type;
};
template <> struct passed<cudnnHandle_t> {
    typedef void *type;
};
template <> struct passed<cudnnHandle_t *> {
    typedef void **type;
};
template <> struct passed<cudaStream_t> {
    typedef void *type;
};
template <class F> struct as_passed;
template <class R, class... P> struct as_passed<R(P...)> {
    typedef typename passed<R>::type type(typename passed<P>::type...);
};
#define X(name, result, parameters)                                                                \
    static_assert(std::is_same_v<as_passed<decltype(::name)>::type, result parameters>, #name);
GR_CUDNN_FUNCTIONS(X)
#undef X

} // namespace
