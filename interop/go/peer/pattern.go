package main

// pattern is an endless stream of bytes, another one for every number: byte n is a function of n, so that lost, doubled and
// misplaced bytes all show. The Rust tests have the same.
type pattern uint64

func (p pattern) at(offset uint64) byte {
	return byte(p.word(offset/8) >> (offset % 8 * 8))
}

func (p pattern) fill(offset uint64, out []byte) {
	for i := range out {
		out[i] = p.at(offset + uint64(i))
	}
}

func (p pattern) word(n uint64) uint64 {
	return mix((uint64(p)^n)*0x9e3779b97f4a7c15 + n)
}

// random is a splitmix64 generator.
type random uint64

func (r *random) next() uint64 {
	*r += 0x9e3779b97f4a7c15
	return mix(uint64(*r))
}

func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
