"""A training log in Caffe's form: a new year, a foreign line, numbers that are none."""

LOG = """\
Log file created at: 2016/12/31 23:59:00
I1231 23:58:59.500000  1234 caffe.cpp:217] Using GPUs 0
I1231 23:59:00.000000  1234 solver.cpp:272] Solving LeNet
I1231 23:59:00.000100  1234 solver.cpp:273] Learning Rate Policy: step
I1231 23:59:00.250000  1234 solver.cpp:330] Iteration 0, Testing net (#0)
I1231 23:59:01.500000  1234 solver.cpp:397]     Test net output #0: accuracy = 0.125
I1231 23:59:01.500001  1234 solver.cpp:397]     Test net output #1: loss = 2.31 (* 1 = 2.31 loss)
I1231 23:59:02.000000  1234 solver.cpp:218] Iteration 0 (-1.2e-38 iter/s, 1.75s/100 iters), loss = 2.5
I1231 23:59:02.000001  1234 solver.cpp:237]     Train net output #0: loss = 2.5 (* 1 = 2.5 loss)
I1231 23:59:02.000002  1234 sgd_solver.cpp:105] Iteration 0, lr = 0.01
some other program's words: Iteration 77, loss = 1
I0101 00:00:00.000000  1234 solver.cpp:218] Iteration 100 (2 iter/s, 50s/100 iters), loss = 0.5
I0101 00:00:00.000001  1234 solver.cpp:237]     Train net output #0: loss = 4e-01 (* 1 = 0.4 loss)
I0101 00:00:00.000002  1234 sgd_solver.cpp:105] Iteration 100, lr = 1e-03
I0101 00:00:01.000000  1234 solver.cpp:330] Iteration 200, Testing net (#0)
I0101 00:00:02.000000  1234 solver.cpp:397]     Test net output #0: accuracy = 0.75
I0101 00:00:02.000001  1234 solver.cpp:397]     Test net output #1: loss = -nan
I0101 00:00:03.000000  1234 solver.cpp:218] Iteration 200, loss = 0.25
I0101 00:00:03.000001  1234 solver.cpp:237]     Train net output #0: loss = inf (* 1 = inf loss)
I0101 00:00:03.000002  1234 sgd_solver.cpp:105] Iteration 200, lr = 0.001
"""
