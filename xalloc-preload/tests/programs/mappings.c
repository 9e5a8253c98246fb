// The mappings that a program makes itself.
#define _GNU_SOURCE
#include <sys/mman.h>
#include <stdio.h>
#include <unistd.h>
#include <fcntl.h>
int main(){ char*p=mmap(0,1<<20,3,MAP_PRIVATE|MAP_ANONYMOUS,-1,0); p[0]=1; p=mremap(p,1<<20,2<<20,MREMAP_MAYMOVE); p[(2<<20)-1]=2; madvise(p,4096,MADV_DONTNEED); mlock(p,4096); munlock(p,4096); munmap(p,2<<20);
 int f=open("/etc/passwd",O_RDONLY); p=mmap(0,4096,PROT_READ,MAP_SHARED,f,0); putchar(p[0]); putchar(10); munmap(p,4096); void*b=sbrk(8192); printf("%d\n",(char*)sbrk(0)-(char*)b==8192); brk(b); printf("%d\n",sbrk(0)==b); printf("%d\n",mmap(0,0,0,0,-1,0)==MAP_FAILED);
 // Aligned, but not the program's to unmap.
 printf("%d\n",munmap((void*)(1L<<62),4096)==-1); return 0; }
