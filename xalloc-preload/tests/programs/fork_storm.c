// Threads exchange blocks while one of them forks; children and grandchildren use what they inherited.
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#define SLOTS 256
static _Atomic(char *) slots[SLOTS];
static atomic_int stop;
static unsigned next(unsigned *s) { return (*s = *s * 1103515245 + 12345) >> 8; }
static void step(unsigned *s) {
  unsigned fill = next(s), kind = next(s) % 100;
  size_t bytes = 1 + next(s) % (kind < 80 ? 2000 : kind < 98 ? 40000 : 400000);
  char *block = next(s) % 4 ? malloc(bytes) : calloc(1, bytes);
  if (!block) _exit(90);
  memset(block, fill, bytes);
  if (next(s) % 4 == 0 && !(block = realloc(block, 1 + next(s) % 5000))) _exit(91);
  free(atomic_exchange(&slots[next(s) % SLOTS], block));
}
static void *churn(void *seed) { unsigned s = (size_t)seed; while (!stop) step(&s); return 0; }
static int fork_one(unsigned n, int generations) {
  pid_t child = generations ? fork() : syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
  if (!child) {
    alarm(20);
    unsigned s = n + 1;
    for (int i = 0; i < 300; i++) step(&s);
    for (int i = 0; i < SLOTS; i++) free(atomic_exchange(&slots[i], 0));
    int bad = generations > 1 ? fork_one(n, generations - 1) : 0;
    if (n % 2) exit(bad ? 92 : 5);
    _exit(bad ? 92 : 5);
  }
  int status = -1;
  waitpid(child, &status, 0);
  if (status != 5 << 8) fprintf(stderr, "child %u, %d generations: status %#x\n", n, generations, status);
  return status != 5 << 8;
}
static void *forks(void *bad) {
  unsigned s = 77;
  for (unsigned n = 0; n < 60; n++) { *(int *)bad += fork_one(n, 3); for (int i = 0; i < 20; i++) step(&s); }
  return 0;
}
// A thread that never allocates, and whose children no handler hears of.
static void *clones(void *bad) {
  for (unsigned n = 0; n < 60; n++) *(int *)bad += fork_one(2 * n, 0);
  return 0;
}
int main(void) {
  pthread_t threads[5];
  int bad = 0;
  for (size_t i = 0; i < 3; i++) pthread_create(&threads[i], 0, churn, (void *)(i + 1));
  pthread_create(&threads[3], 0, forks, &bad);
  pthread_join(threads[3], 0);
  pthread_create(&threads[4], 0, clones, &bad);
  pthread_join(threads[4], 0);
  stop = 1;
  for (int i = 0; i < 3; i++) pthread_join(threads[i], 0);
  printf("%d bad\n", bad);
  return 42; }
