/* Starts LeakSanitizer, which is preloaded before this: by itself it starts when something calls it, which may be too early
 * for it. */
extern void __lsan_init(void);
__attribute__((constructor)) static void start(void) { __lsan_init(); }
