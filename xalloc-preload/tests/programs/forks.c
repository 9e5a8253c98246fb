// Children of every kind; each line says how one of them ended.
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <sys/wait.h>
#include <sys/syscall.h>
#include <sched.h>
#include <spawn.h>
#include <errno.h>
extern char**environ;
static void st(const char*w,pid_t p){ int s; waitpid(p,&s,0); printf("%s %d\n",w,WIFEXITED(s)?WEXITSTATUS(s):-WTERMSIG(s)); fflush(stdout); }
int main(int c,char**v){
 void*a=malloc(100);
 pid_t p=fork(); if(!p){ free(a); free(malloc(10)); _exit(7);} st("fork",p);
 p=syscall(SYS_clone,SIGCHLD,0,0,0,0); if(!p){ free(malloc(11)); free(malloc(12)); _exit(8);} st("clone",p);
 p=vfork(); if(!p){ free(malloc(13)); char*e[]={"A=b",0}; char*av[]={"sh","-c","test -n \"$LD_PRELOAD\" && test -n \"$XALLOC_OUT$XALLOC_SESSION\" && echo has; exit 9",0}; execve("/bin/sh",av,e); _exit(99);} st("vfork",p);
 p=fork(); if(!p){ execl("/bin/sh","sh","-c","exit $4","a0","1","2","3","10","5",(char*)0); _exit(99);} st("execl",p);
 p=fork(); if(!p){ char*e[]={"X=11",0}; execle("/bin/sh","sh","-c","exit $X",(char*)0,e); _exit(99);} st("execle",p);
 p=fork(); if(!p){ unsetenv("LD_PRELOAD"); execlp("sh","sh","-c","test -n \"$LD_PRELOAD\" && echo has; exit 12",(char*)0); _exit(99);} st("execlp",p);
 char*av[]={"sh","-c","test -n \"$LD_PRELOAD\" && echo has; exit 13",0}; char*e[]={"B=c",0}; posix_spawnp(&p,"sh",0,0,av,e); st("spawn",p);
 p=fork(); if(!p){ execl("/nonexistent","x",(char*)0); int r=errno==ENOENT?14:15; void*q=malloc(5); free(q); exit(r);} st("fail",p);
 p=fork(); if(!p){ p=fork(); if(!p){ free(malloc(77)); _exit(3);} int s; waitpid(p,&s,0); free(malloc(9)); quick_exit(WEXITSTATUS(s)+1);} st("grand",p);
 p=fork(); if(!p){ execve((char*)0x10,av,e); int r=errno==EFAULT; execveat(-1,(char*)-4096L,av,e,0); exit(r&&errno==EFAULT?16:17);} st("bad path",p);
 free(a); exit(21); }
