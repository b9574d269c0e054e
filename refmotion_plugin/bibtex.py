"""
@article{Zivanov2019,
  title   = {A {Bayesian} approach to beam-induced motion correction in cryo-{EM} single-particle analysis},
  author  = {Zivanov, Jasenko and Nakane, Takanori and Scheres, Sjors H. W.},
  journal = {IUCrJ},
  volume  = {6},
  number  = {1},
  pages   = {5--17},
  year    = {2019},
  doi     = {10.1107/S205225251801463X}
}

@article{Grant2015,
  title   = {Measuring the optimal exposure for single particle cryo-{EM} using a 2.6 {\\AA} reconstruction of rotavirus {VP6}},
  author  = {Grant, Timothy and Grigorieff, Nikolaus},
  journal = {eLife},
  volume  = {4},
  pages   = {e06980},
  year    = {2015},
  doi     = {10.7554/eLife.06980}
}
"""
