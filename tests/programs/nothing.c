// Allocates nothing: its heap is empty at any moment, and its resident memory is all of others.
int main(void) {
    return 0;
}
