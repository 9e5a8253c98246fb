/* Libraries that are loaded while the program runs; `libholder.so` lies beside it.
 *
 *   case           keep         lose         what is special
 *   library_data   reachable    definite     in a variable of a library that was loaded
 *   library_tls    reachable    definite     in a variable of the library's that each thread has
 *   unloaded_data  reachable    definite     in a library's variable; lost: the library was unloaded
 *   unloaded_maker reachable    definite     a library made it and was unloaded
 *   library_frees  freed        definite     the library's destructor frees it
 */
#include "twins.h"
#include <dlfcn.h>
#include <unistd.h>

struct holder {
    void **variable, **own, *(*make)(void), **freed;
};

static void *library;
static AWAY struct holder load(void) {
    char path[4096] = {0};
    if (readlink("/proc/self/exe", path, sizeof path - 32) < 0) abort();
    strcpy(strrchr(path, '/'), "/libholder.so");
    library = dlopen(path, RTLD_NOW);
    if (!library) abort();
    return ((struct holder(*)(void))dlsym(library, "holder"))();
}

static void library_data(void) { put(load().variable); }
static void library_tls(void) { put(load().own); }
static void unloaded_data(void) {
    *load().variable = block();
    if (!keeps) dlclose(library);
}
static void unloaded_maker(void) {
    void *made = load().make();
    *(void *volatile *)&slot = keeps ? made : 0;
    made = 0;
    dlclose(library);
}
static void library_frees(void) {
    put(load().freed);
    dlclose(library);
}

PROGRAMS({"library_data", library_data}, {"library_tls", library_tls}, {"unloaded_data", unloaded_data},
         {"unloaded_maker", unloaded_maker}, {"library_frees", library_frees})
