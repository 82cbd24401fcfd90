# Sourced by tests that change the emulated plug-in: its files are compiled and linked here.  In $work:
# kernels/cuda/FILE.cu, changed; then FILE.o, and libgraft_cuda.so.  Set before: source, the checkout;
# work; compiler; include, NVIDIA's headers; all, an array of the plug-in's objects.

# compile FILE: the changed file, as tests/emu/CMakeLists.txt compiles it
compile()
{
    "$compiler" -x c++ -std=gnu++17 -O1 -fno-strict-aliasing -ffp-contract=off -fPIC -fvisibility=hidden \
        -Wno-unknown-pragmas -DGR_EMULATED -D_GNU_SOURCE -I"$source" -I"$source/tests/emu" -isystem "$include" \
        -c "$work/kernels/cuda/$1" -o "$work/$1.o"
}

# link [FILE...]: the plug-in, with those in the place of what they were
link()
{
    local objects=() object
    for object in "${all[@]}"; do
        case " $* " in
        *" $(basename "$object" .o) "*) objects+=("$work/$(basename "$object")") ;;
        *) objects+=("$object") ;;
        esac
    done
    "$compiler" -shared -o "$work/libgraft_cuda.so" "${objects[@]}" -lpthread -ldl
}
